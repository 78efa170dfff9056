#!/bin/sh
# Write the configuration when the container starts, because the image does not know the release and the environment.
set -eu
cd /tmp
touch proxy.conf
if [ "${API_PROXY:-off}" = on ]; then
    sed "s|@API_URL@|$API_URL|g" /etc/nginx/pmanager/proxy.conf > proxy.conf
fi
sed "s|@RELEASE@|$RELEASE|g; s|@SLOT@|$SLOT|g" /etc/nginx/pmanager/nginx.conf > nginx.conf
exec nginx -c /tmp/nginx.conf -g 'daemon off;'
