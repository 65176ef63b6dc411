# Writes what MariaDB runs at every start: the user has the password that the Secret has now. By itself the image reads it once,
# into an empty volume. There, earlier versions of this folder had it make a root for all hosts.
set -eu
umask 077
password=$(cat "$PASSWORD_FILE")
password=${password//\\/\\\\}
cat >"$INIT_FILE" <<SQL
ALTER USER IF EXISTS 'ndr'@'%' IDENTIFIED BY '${password//\'/\\\'}';
DROP USER IF EXISTS 'root'@'%';
SQL
