# Puts a dump in the place of the database: $DUMP, the name of a file in $FOLDER, or the newest one.
# Killed on the way, it leaves half a database: run it again.
set -euo pipefail
export MYSQL_PWD
MYSQL_PWD=$(cat "$PASSWORD_FILE")
dump=$FOLDER/${DUMP:-$(find "$FOLDER" -name 'metadata-*.sql.gz' -printf '%f\n' | sort | tail -n 1)}
if ! [ -f "$dump" ] || ! gunzip --test "$dump"; then
    echo "expected a whole dump, came: $dump. These are there:" >&2
    ls "$FOLDER" >&2
    exit 1
fi
echo "restores $dump"
server=(--host="$HOST" --port="$PORT" --user=ndr --default-character-set=utf8mb4)
mariadb "${server[@]}" --execute="DROP DATABASE IF EXISTS metadata; CREATE DATABASE metadata"
gunzip --stdout "$dump" | mariadb "${server[@]}" --binary-mode metadata
echo "restored $dump"
