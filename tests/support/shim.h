/* Test support: libraries preloaded into sluice, from tests/shims/. */
#ifndef SUPPORT_SHIM_H
#define SUPPORT_SHIM_H

enum { SHIM_PATH_BYTES = 4096 };

/** The path of a shim of this build. Skips the test where there is none, or where a sanitizer, which
 *  must come first, forbids preloading. */
void shim_find(const char *name, char path[SHIM_PATH_BYTES]);

#endif
