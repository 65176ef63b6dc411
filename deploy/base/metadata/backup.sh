# Dumps the database of ML Metadata to $FOLDER/metadata-DAYTHOUR.sql.gz, then removes all but the newest $KEEP dumps.
# Takes the dump while steps run: one transaction sees the tables as they were at one moment.
set -euo pipefail
umask 077
export MYSQL_PWD
MYSQL_PWD=$(cat "$PASSWORD_FILE")
dump=$FOLDER/metadata-$(date -u +%Y%m%dT%H%M%SZ).sql.gz
rm -f "$FOLDER"/*.unfinished
mariadb-dump --host="$HOST" --port="$PORT" --user=ndr --single-transaction --skip-lock-tables --no-tablespaces --hex-blob \
    --default-character-set=utf8mb4 metadata | gzip >"$dump.unfinished"
gunzip --stdout "$dump.unfinished" | tail -n 1 | grep -q '^-- Dump completed' # a dump that was cut off lacks this line
sync "$dump.unfinished"
mv "$dump.unfinished" "$dump"
find "$FOLDER" -name 'metadata-*.sql.gz' | sort -r | tail -n +"$((KEEP + 1))" | xargs --no-run-if-empty rm --
echo "wrote $dump, $(stat --format=%s "$dump") bytes; $(find "$FOLDER" -name 'metadata-*.sql.gz' | wc -l) dumps are kept"
