/* Fixed-size objects in mmap'd chunks.
 *
 * Why not malloc: a session is needed for every connection, and a relay that runs for years must
 * neither fragment nor meet its memory limit in the middle of a transfer. Here the limit is counted
 * in objects, memory is asked for in whole chunks, and pages that were never used cost nothing
 * because the kernel only backs what is touched.
 *
 *   chunk:  [ header | object | object | ... ]     mapped once, carved from left to right
 *   free:   object -> object -> NULL               a returned object carries the link itself
 *
 * Invariants: S1 objects_in_use <= objects_max. S2 an object is either in use or on the free list
 * or not carved yet. In debug builds a returned object is filled with a pattern, so that a use
 * after return shows.
 *
 * Single-threaded. Chunks are never given back before slab_fini(): the peak stays reserved. */
#include "base/slab.h"

#include "base/check.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SLAB_ALIGN_BYTES = 64,       /* a cache line, so that two objects never share one */
    SLAB_CHUNK_BYTES = 1 << 20,  /* 1 MiB: a few hundred system calls for a million sessions */
    SLAB_RETURNED_PATTERN = 0xdb /* what a returned object is filled with in debug builds */
};

struct slab_free {
    struct slab_free *next;
};

struct slab_chunk {
    struct slab_chunk *next;
    size_t bytes;
};

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

void slab_init(struct slab *slab, size_t object_bytes, size_t objects_max)
{
    CHECK(object_bytes > 0);
    CHECK(objects_max > 0);
    memset(slab, 0, sizeof(*slab));
    slab->object_bytes = round_up(object_bytes, SLAB_ALIGN_BYTES);
    slab->objects_max = objects_max;
    slab->objects_per_chunk = (SLAB_CHUNK_BYTES - SLAB_ALIGN_BYTES) / slab->object_bytes;
    if (slab->objects_per_chunk < 1) {
        slab->objects_per_chunk = 1;
    }
    if (slab->objects_per_chunk > objects_max) {
        slab->objects_per_chunk = objects_max;
    }
}

void slab_fini(struct slab *slab)
{
    CHECK(slab->objects_in_use == 0);
    while (slab->chunk != NULL) {
        struct slab_chunk *chunk = slab->chunk;

        slab->chunk = chunk->next;
        /* Fails only for a bad range, which would be a bug found long before. */
        (void)munmap(chunk, chunk->bytes);
    }
    slab->free = NULL;
    slab->carved = 0;
}

static bool slab_grow(struct slab *slab)
{
    size_t bytes = SLAB_ALIGN_BYTES + slab->objects_per_chunk * slab->object_bytes;
    struct slab_chunk *chunk =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (chunk == MAP_FAILED) {
        return false;
    }
    chunk->bytes = bytes;
    chunk->next = slab->chunk;
    slab->chunk = chunk;
    slab->carved = 0;
    return true;
}

static void *slab_carve(struct slab *slab)
{
    if (slab->chunk == NULL || slab->carved == slab->objects_per_chunk) {
        if (!slab_grow(slab)) {
            return NULL;
        }
    }
    return (char *)slab->chunk + SLAB_ALIGN_BYTES + slab->carved++ * slab->object_bytes;
}

void *slab_get(struct slab *slab)
{
    void *object = slab->free;

    CHECK(slab->objects_in_use <= slab->objects_max); /* S1 */
    if (slab->objects_in_use == slab->objects_max) {
        return NULL;
    }
    if (object != NULL) {
        slab->free = slab->free->next;
    } else {
        object = slab_carve(slab);
    }
    if (object != NULL) {
        slab->objects_in_use++;
    }
    return object;
}

void slab_put(struct slab *slab, void *object)
{
    struct slab_free *returned = object;

    if (object == NULL) {
        return;
    }
    CHECK(slab->objects_in_use > 0);
#ifdef SLUICE_DEBUG
    memset(object, SLAB_RETURNED_PATTERN, slab->object_bytes);
#endif
    returned->next = slab->free;
    slab->free = returned;
    slab->objects_in_use--;
}
