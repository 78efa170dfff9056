#!/bin/sh
# build.sh FROM TO: copy the sources, add a hash of the content to the name of each asset, and compress scripts and style sheets.
set -eu
cp -r "$1" "$2"
cd "$2"
for file in assets/*; do
    hash=$(sha256sum "$file" | cut -c1-8)
    hashed="${file%.*}.$hash.${file##*.}"
    mv "$file" "$hashed"
    sed -i "s|$file|$hashed|g" index.html
done
gzip -9 -k assets/*.js assets/*.css
