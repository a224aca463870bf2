from dnsd.contract cimport names

cpdef bytes minimised(bytes sname, bytes known, int asked)
