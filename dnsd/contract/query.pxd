cimport cython

from dnsd.contract.codes cimport *
from dnsd.contract.octets cimport fold

@cython.final
cdef class Query:
    cdef public unsigned char[::1] buf
    cdef public unsigned char[::1] name
    cdef public unsigned char[::1] client
    cdef public unsigned long long[::1] client_words
    cdef public unsigned int[::1] label
    cdef public unsigned int[::1] hash_policy
    cdef public unsigned int[::1] hash_names
    cdef public unsigned int seed_policy
    cdef public unsigned int seed_names
    cdef public int base
    cdef public int length
    cdef public int flags
    cdef public int opcode
    cdef public int labels
    cdef public int name_length
    cdef public int question_end
    cdef public int qtype
    cdef public int qclass
    cdef public int edns
    cdef public int udp_size
    cdef public int edns_version
    cdef public int do
    cdef public int options
    cdef public int options_length
    cdef public int fault
    cdef public int hashed
    cdef public int cookie
    cdef public int cookie_length
    cdef public int nsid
    cdef public int keepalive

    cpdef int parse(self, int base, int length) except? -1
    cdef int skip_name(self, int at, int end) except? -1
    cdef int read_additional(self, int at, int end) except? -1
    cdef int read_options(self, int at, int end) except? -1
    cpdef int hash(self) except? -1
    cdef int hash_with(self, unsigned int seed, unsigned int[::1] hashes) except? -1
