cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.layout cimport *
from dnsd.contract.cookies cimport Cookies
from dnsd.contract.octets cimport copy
from dnsd.contract.query cimport Query
from dnsd.contract.table cimport Table
from dnsd.contract.factsview cimport FactsView
from dnsd.contract.verdict cimport Verdict

@cython.final
cdef class Responder:
    cdef unsigned char[::1] out
    cdef public object out_buffer
    cdef public int edns_size
    cdef const unsigned char[::1] revision
    cdef int revision_length
    cdef public int rcode
    cdef public int truncated
    cdef int authentic
    cdef int at
    cdef int base
    cdef int end
    cdef int ede
    cdef unsigned int ede_info
    cdef const unsigned char[::1] ede_text
    cdef int ede_text_at
    cdef int ede_text_length
    cdef const unsigned char[::1] made_soa
    cdef public Cookies cookies
    cdef public unsigned int now
    cdef public int keepalive
    cdef const unsigned char[::1] identity
    cdef int identity_length

    cpdef int size_limit(self, Query q) except? -1
    cpdef int write(self, Table t, Query q, Verdict v, int base, int limit) except? -1
    cpdef int fail(self, Query q, int rcode, int ede, bytes text, int base, int limit) except? -1
    cpdef int relay(self, Table t, Query q, Verdict v, int base, int limit, const unsigned char[::1] data, int body, int length, int question, int rcode, int answers, int authorities, int additionals, int ttls, int ttl_count, int pointers, int pointer_count, unsigned int age) except? -1
    cdef int truncate(self, Query q, int base, int limit) except? -1
    cdef int begin(self, Query q, int base, int limit) except? -1
    cdef int finish(self, Table t, Query q, int aa, int answers, int authorities, int additionals) except? -1
    cdef int decided_by(self, Table t, Verdict v) except? -1
    cdef int room(self, Query q) except? -1
    cdef int u16(self, unsigned int value) except? -1
    cdef int u32(self, unsigned int value) except? -1
    cdef int owner(self, Query q, int label) except? -1
    cdef int copy(self, const unsigned char[::1] data, int first, int length) except? -1
    cdef int soa(self, Table t, Query q, Verdict v) except? -1
    cdef int minimal(self) except? -1
    cdef int own_size(self, Table t, Query q, Verdict v) except? -1
    cdef int own(self, Table t, Query q, Verdict v) except? -1
    cdef int prefix(self, Table t, Verdict v) except? -1
    cdef int get_u16(self, const unsigned char[::1] data, int at) except? -1
    cdef int relocate(self, Query q, const unsigned char[::1] data, int body, int question, int pointers, int pointer_count, int start, int target_at) except? -1
