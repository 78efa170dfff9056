#!/bin/sh
# Stands for BusyBox: the first argument is the program, as in `busybox sh -c …` and `busybox cat …`.
exec "$@"
