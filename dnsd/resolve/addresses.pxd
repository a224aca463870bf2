cimport cython
from dnsd.resolve.config cimport Config
from dnsd.resolve.rrcache cimport Delegation, Denial, RRCache
from dnsd.resolve.rrsets cimport RRset

cpdef tuple types(Config config)
cpdef list preferred(list servers, Config config)
cpdef bint may_ask(str address, Config config) except? -1
@cython.locals(glue=dict, out=list, texts=list, rrset=RRset)
cpdef list known(Delegation cut, RRCache cache, Config config)
@cython.locals(denial=Denial)
cpdef bint exists(bytes qname, RRCache cache) except? -1
