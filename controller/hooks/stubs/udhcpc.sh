#!/bin/sh
@MARK@
# For `udhcpc -s @PLACE@`: does what the script of the distribution does, then tells NexoralDNS, in the background.
# Undo: nexoraldns hook remove
@ORIGINAL@ "$@"
status=$?
if [ -x @EXECUTABLE@ ]; then
    config=@CONFIG@
    NEXORALDNS_CONFIG="${NEXORALDNS_CONFIG:-$config}" \
        timeout -s KILL 5 @PROGRAM@ hook -- "$@" </dev/null >/dev/null 2>&1 &
fi
exit $status
