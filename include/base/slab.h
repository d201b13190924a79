/* Layer: base. Allocator for objects of one size, with a limit: sessions and buffers live in slabs.
 *
 * Memory is mapped in chunks when it is first needed and kept until slab_fini(). The object freed
 * last is given out first, so that the memory in use stays warm in the cache. */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/macros.h"

#include <stddef.h>

struct slab {
    size_t object_bytes;      /* rounded up to a cache line */
    size_t objects_max;       /* slab_get() refuses beyond this */
    size_t objects_in_use;    /* given out and not yet returned */
    size_t objects_per_chunk; /* so that a chunk is about SLAB_CHUNK_BYTES */
    /* private */
    struct slab_free *free;   /* returned objects, the last one first */
    struct slab_chunk *chunk; /* the newest chunk; older ones are linked behind it */
    size_t carved;            /* objects of the newest chunk given out at least once */
};

/** Prepares an empty slab; maps nothing yet. `object_bytes` > 0, `objects_max` > 0. */
void slab_init(struct slab *slab, size_t object_bytes, size_t objects_max);

/** Unmaps everything. All objects must have been returned. A zeroed slab is accepted. */
void slab_fini(struct slab *slab);

/** An object with undefined content, aligned to a cache line; NULL at the limit or without memory.
 *  Owned by the caller until slab_put(). */
MUST_CHECK void *slab_get(struct slab *slab);

/** Returns an object that slab_get() of this slab gave. NULL is accepted. */
void slab_put(struct slab *slab, void *object);

#endif
