# Succeeds when TF Serving answers for every model of a version. A probe of Kubernetes' own asks one address only, and TF Serving
# has none for all models; its image has bash and no HTTP client.
for model in query_tower item_tower retriever; do
    exec 3<>"/dev/tcp/127.0.0.1/${PORT:-8501}" || exit 1
    printf 'GET /v1/models/%s/metadata HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$model" >&3
    read -r -t 3 _ status _ <&3 || status="no answer"
    exec 3>&-
    if [ "$status" != 200 ]; then
        echo "$model: $status"
        exit 1
    fi
done
