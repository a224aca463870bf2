cimport cython

cpdef bytes lower(bytes name)
@cython.locals(n=int, i=int)
cpdef int count(bytes name) except? -1
cpdef bytes parent(bytes name)
cpdef list suffixes(bytes name)
@cython.locals(i=int, own=int)
cpdef bint is_below(bytes name, bytes ancestor) except? -1
