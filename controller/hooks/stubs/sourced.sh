@MARK@
# Tells NexoralDNS what became of a lease. @CALLER@ reads this file into its own shell: nothing is set here, nothing is
# waited for, nothing can fail. Undo: nexoraldns hook remove
if [ -x @EXECUTABLE@ ]; then
    (
        config=@CONFIG@
        NEXORALDNS_CONFIG="${NEXORALDNS_CONFIG:-$config}" \
            timeout -s KILL 5 @PROGRAM@ hook -- </dev/null >/dev/null 2>&1 &
    ) || :
fi
