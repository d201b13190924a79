/* The shims of a build lie beside its test programs; this test program knows where it is itself. */
#include "support/shim.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void shim_find(const char *name, char path[SHIM_PATH_BYTES])
{
    char own[SHIM_PATH_BYTES - 64] = "";
    char *slash;

#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("AddressSanitizer has an allocator of its own and must be loaded first");
#endif
    cr_assert(readlink("/proc/self/exe", own, sizeof(own) - 1) > 0);
    slash = strrchr(own, '/');
    cr_assert(slash != NULL);
    *slash = '\0';
    (void)snprintf(path, SHIM_PATH_BYTES, "%s/shims/%s.so", own, name);
    if (access(path, R_OK) < 0) {
        cr_skip_test("there is no %s: it is made with the suite net", path);
    }
}
