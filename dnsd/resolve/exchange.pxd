from dnsd.contract cimport names
from dnsd.resolve.rrsets cimport parse, question

cpdef bytes randomised(bytes name, object chance)
