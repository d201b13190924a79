/* Layer: conf. The known name that a misspelt one was probably meant to be. */
#ifndef CONF_NEAREST_H
#define CONF_NEAREST_H

/** Letters to change, insert or remove to get from `a` to `b` (Levenshtein); names of at most 63
 *  bytes, longer ones are as far apart as can be. */
unsigned nearest_distance(const char *a, const char *b);

/** The setting closest to `name`, NULL when none is close enough to be worth naming. */
const char *nearest_setting(const char *name);

#endif
