#!/bin/sh
# In a container a sandbox of its own would need rights that the container does not have. The budget is time as the page sees it:
# what it asks for after it is loaded is waited for.
set -eu
chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --window-size=1000,700 \
    --virtual-time-budget=10000 --screenshot=/tmp/page.png "$1" >&2
pngquant --quality 40-90 --strip - < /tmp/page.png
