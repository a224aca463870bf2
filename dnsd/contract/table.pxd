cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.layout cimport *
from dnsd.contract.octets cimport equal
from dnsd.contract.query cimport Query

cdef extern from *:
    """
    #define nexoraldns_prefetch(place) __builtin_prefetch(place)
    """
    void prefetch "nexoraldns_prefetch"(const void *place) nogil

@cython.final
cdef class Table:
    cdef const unsigned char[::1] policy
    cdef const unsigned int[::1] words
    cdef const unsigned char[::1] names
    cdef const unsigned int[::1] name_words
    cdef public unsigned int[::1] section
    cdef public unsigned int[::1] section_bytes
    cdef public unsigned int[::1] section_count
    cdef public str digest
    cdef public str meaning
    cdef public str names_digest
    cdef public unsigned int seed_policy
    cdef public unsigned int seed_names
    cdef public object policy_buffer
    cdef public object names_buffer
    # Word offsets of the sections that the query path reads.
    cdef unsigned int index
    cdef unsigned int index_mask
    cdef unsigned int index_run
    cdef unsigned int nodes
    cdef unsigned int node_names
    cdef unsigned int sets
    cdef unsigned int candidates
    cdef unsigned int rules
    cdef unsigned int qtypes
    cdef unsigned int owners
    cdef unsigned int zones
    cdef unsigned int routes
    cdef unsigned int route_classes
    cdef public unsigned int route_class_count
    cdef unsigned int answers
    cdef unsigned int clients4
    cdef unsigned int clients4_count
    cdef unsigned int clients6
    cdef unsigned int clients6_count
    cdef unsigned int listsets
    cdef unsigned int listset_count
    cdef unsigned int texts
    cdef public unsigned int own_ptr
    cdef unsigned int rule_info
    cdef unsigned int owner_info
    cdef unsigned int zone_info
    cdef unsigned int protect
    cdef unsigned int protect_info
    cdef public unsigned int protect_flags
    cdef unsigned int names_index
    cdef unsigned int names_mask
    cdef unsigned int names_run
    cdef unsigned int names_records
    cdef unsigned int names_count
    cdef unsigned int[::1] labels_policy
    cdef unsigned int[::1] labels_names

    cdef int find_node(self, Query q, int i) except? -2
    cdef int find_listset(self, Query q, int i) except? -2
    cdef unsigned int where_of(self, int rule, int guard, int owner, int zone) except? 0
    cdef unsigned int route_for(self, unsigned int route, unsigned int client_class) except? 0
    cpdef int class_of(self, Query q) except? -1
    cdef unsigned int be32(self, Query q, int at) except? 0
    cdef int hash(self, Query q) except? -1
    cdef int approach(self, Query q) except? -1
