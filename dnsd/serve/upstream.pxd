cimport cython
from dnsd.resolve.forwarder cimport Ask, matches
from dnsd.serve.chance cimport Chance

@cython.final
cdef class _Exchange:
    cdef public Ask ask
    cdef public object done
    cdef public long long query_id
    cdef public _Pooled pooled
    cdef public _Stream stream

@cython.final
cdef class _Pooled:
    cdef public object sock
    cdef public tuple server
    cdef public long long place
    cdef public long long born_ms
    cdef public long long asked
    cdef public bint retired
    cdef public dict waiting

@cython.final
cdef class _Stream:
    cdef public object sock
    cdef public _Exchange exchange
    cdef public bytes out
    cdef public bytearray data

@cython.final
cdef class Upstream:
    cdef public object _loop
    cdef public object _counters
    cdef public object _now_ms
    cdef public int _size
    cdef public dict _pools
    cdef public dict _sockets
    cdef public dict _streams
    cdef public list _timers
    cdef public long long _sequence
    cdef public Chance _chance
    cdef public list _failed
    cdef public int pending
    cpdef object ask(self, Ask ask, object done)
    cpdef object expire(self, long long now_ms)
    cpdef object next_ms(self)
    cdef str _send(self, _Exchange exchange)
    cdef _Pooled _draw(self, tuple server)
    cdef _Pooled _fresh(self, tuple server)
    cdef object _drop(self, _Pooled pooled)
    cdef object _finish(self, _Exchange exchange, bytes wire, str error)
    cdef object _retire(self, _Pooled pooled)
