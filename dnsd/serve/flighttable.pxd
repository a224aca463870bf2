cimport cython

cdef int FREE
cdef int FLYING
cdef int HANDED

@cython.final
cdef class FlightTable:
    cdef public int flights
    cdef int joiners
    cdef public int under_way
    cdef public int waiting
    cdef public int[::1] state
    cdef public unsigned char[::1] name
    cdef public int[::1] name_length
    cdef public unsigned int[::1] hash
    cdef public int[::1] qtype
    cdef public int[::1] bits
    cdef public int[::1] route
    cdef public unsigned long long[::1] generation
    cdef public int[::1] slot
    cdef public int[::1] query_id
    cdef public int[::1] pool
    cdef public unsigned long long[::1] deadline
    cdef public unsigned long long[::1] until
    cdef public unsigned long long[::1] sent
    cdef public int[::1] lead
    cdef public int[::1] mate
    cdef public int[::1] first
    cdef int[::1] last
    cdef public int[::1] count
    cdef int[::1] by_key
    cdef int[::1] by_id
    cdef int[::1] spokes
    cdef int[::1] key_next
    cdef int[::1] id_next
    cdef int[::1] spoke_next
    cdef int[::1] spoke_before
    cdef unsigned long long spoke_at
    cdef int free_flight
    cdef int fresh_flight
    cdef public int[::1] next
    cdef public int[::1] fd
    cdef public int[::1] length
    cdef public unsigned char[::1] packet
    cdef public unsigned long long[::1] client
    cdef public unsigned long long[::1] started
    cdef public unsigned char[::1] names
    cdef public int[::1] name_lengths
    cdef public unsigned char[::1] controls
    cdef public int[::1] control_lengths
    cdef int free_joiner
    cdef int fresh_joiner

    cdef int bucket(self, unsigned int h, int qtype, int bits, int route) except? -1
    cpdef int find(self, const unsigned char[::1] name, int length, unsigned int h, int qtype, int bits, int route, unsigned long long generation) except? -2
    cpdef int start(self, const unsigned char[::1] name, int length, unsigned int h, int qtype, int bits, int route, unsigned long long generation) except? -2
    cdef int fresh(self) except? -2
    cpdef int double(self, int f) except? -2
    cpdef int release(self, int f) except? -1
    cpdef int send(self, int f, int slot, int query_id, int pool, unsigned long long deadline, unsigned long long now) except? -1
    cpdef int hasten(self, int f, unsigned long long deadline) except? -1
    cpdef int match(self, int slot, int query_id) except? -2
    cpdef int on_slot(self, int slot, int first) except? -2
    cpdef int recall(self, int f) except? -1
    cpdef int hand(self, int f) except? -1
    cpdef int due(self, unsigned long long now) except? -2
    cpdef unsigned long long next_ms(self) except? 1
    cpdef int join(self, int f) except? -2
    cpdef int excuse(self, int f, int j, int before) except? -1
    cpdef int leave(self, int j) except? -2
