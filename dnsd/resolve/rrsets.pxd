cimport cython
from dnsd.contract cimport names

@cython.final
cdef class RRset:
    cdef readonly bytes owner
    cdef readonly long long rtype
    cdef readonly long long ttl
    cdef readonly tuple rdatas
    cdef readonly tuple sigs
    cdef readonly tuple proofs
    cpdef RRset lasting(self, long long ttl)

@cython.final
cdef class Message:
    cdef readonly long long rcode
    cdef readonly long long flags
    cdef readonly bint edns
    cdef readonly bytes question
    cdef readonly tuple answer
    cdef readonly tuple authority
    cdef readonly tuple additional

@cython.final
cdef class _Reader:
    cdef public bytes packet
    cdef public int size
    cdef public int end
    cdef public int rcode
    cdef public bint edns
    cdef public dict _known
    cpdef object forget_case(self, int at)
    @cython.locals(packet=bytes, size=int, begin=int, limit=int, start=int, jumps=int, octets=int, n=int, target=int, whole=bytes, known=bytes)
    cpdef bytes name(self, int at)
    @cython.locals(out=bytearray, after=int)
    cpdef bytes rdata(self, int rtype, int at, int end)
    @cython.locals(packet=bytes, begin=int)
    cpdef int plain(self, int at, int end) except -1
    @cython.locals(
        packet=bytes, size=int, owner=bytes, rtype=int, ttl=cython.longlong, rdlength=int, begin=int, end=int, rdata=bytes,
        key=tuple, before=list, value=list, found=dict, signatures=dict, sigs=list, out=list,
    )
    cpdef tuple section(self, int number, int count, int at)

@cython.locals(size=int, flags=int, qdcount=int, ancount=int, nscount=int, arcount=int, at=int, reader=_Reader, question=bytes)
cpdef Message parse(bytes packet)
cpdef bytes question(bytes qname, int qtype, int edns_size, bint do)
@cython.locals(extra=int, i=int)
cpdef bint at_or_below(bytes name, bytes ancestor) except? -1
@cython.locals(place=object, count=int, rdata=bytes)
cdef int _write(bytearray body, dict places, bytes owner, int rtype, long long ttl, tuple rdatas) except? -1
@cython.locals(body=bytearray, places=dict, rrset=RRset, count=int)
cpdef bytes response(bytes qname, int qtype, int rcode, object answer, object authority, bint signed, int flags=*)
