#!/bin/sh
@MARK@
# Tells NexoralDNS what became of a lease. @CALLER@ waits for this script: it leaves at once, and always with 0.
# Undo: nexoraldns hook remove
if [ -x @EXECUTABLE@ ]; then
    config=@CONFIG@
    NEXORALDNS_CONFIG="${NEXORALDNS_CONFIG:-$config}" \
        timeout -s KILL 5 @PROGRAM@ hook -- @WORDS@ </dev/null >/dev/null 2>&1 &
fi
exit 0
