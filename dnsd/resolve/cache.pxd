cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.octets cimport copy, equal

@cython.final
cdef class Cache:
    cdef unsigned char[::1] arena
    cdef unsigned int[::1] words
    cdef public int buckets
    cdef unsigned int mask
    cdef unsigned int log
    cdef unsigned int end
    cdef public unsigned int stored
    cdef public unsigned int evicted
    # Of the entry that `find` found last:
    cdef public int body
    cdef public int length
    cdef public int question
    cdef public int rcode
    cdef public int answers
    cdef public int authorities
    cdef public int additionals
    cdef public int ttls
    cdef public int ttl_count
    cdef public int pointers
    cdef public int pointer_count
    cdef public unsigned int age
    cdef public int event
    cdef public unsigned int entry

    cdef unsigned int mixed(self, unsigned int h, int qtype, int bits, int route) except? 0
    cpdef int find(self, const unsigned char[::1] name, int name_length, unsigned int h, int qtype, int bits, int route, unsigned int now) except? -2
    cdef unsigned int seek(self, const unsigned char[::1] name, int name_length, unsigned int mixed, int qtype, int bits, int route) except? 0
    cdef int take(self, unsigned int at, int name_length) except? -1
    cpdef int find_stale(self, const unsigned char[::1] name, int name_length, unsigned int h, int qtype, int bits, int route, unsigned int now, unsigned int most) except? -2
    cpdef int prolong(self, unsigned int now, unsigned int seconds) except? -1
    cpdef int renewing(self) except? -1
    cdef int same(self, unsigned int at, const unsigned char[::1] name, int name_length, int qtype, int bits, int route) except? -1
    cpdef int reserve(self, unsigned int h, unsigned int size) except? -1
    cdef int grow(self) except? -1
    cdef int passed(self, unsigned int first, unsigned int second) except? -1
    cdef int stamp(self, unsigned int first, unsigned int second) except? -1
    cpdef int drop(self, unsigned int at) except? -1
    cpdef int put(self, const unsigned char[::1] name, int name_length, unsigned int h, int qtype, int bits, int route, const unsigned char[::1] data, int body, int length, int question, int rcode, int answers, int authorities, int additionals, int ttls, int ttl_count, int pointers, int pointer_count, unsigned int now, unsigned int ttl) except? -1
