/* The system calls as sluice makes them, once more under other names: see real_names.h. */
#include "sim/real_names.h"

#include "../../src/net/look.c"
#include "../../src/net/sys.c"
