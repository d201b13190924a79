/* Tests of the slab allocator: limit, order, alignment, and above all that no two objects overlap,
 * for which each object is filled with a pattern of its own and looked at again later. */
#include "base/slab.h"
#include "base/macros.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* RLIMIT_AS says nothing useful about a process with terabytes of shadow memory. */
#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER true
#endif
#endif
#ifndef ADDRESS_SANITIZER
#define ADDRESS_SANITIZER false
#endif

enum { CACHE_LINE_BYTES = 64, RETURNED_PATTERN = 0xdb };

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The pattern of object `id`: no two ids agree in any eight bytes of it. */
static unsigned char pattern_byte(size_t id, size_t position)
{
    return (unsigned char)(id >> (position % 8 * 8) ^ position / 8 * 131);
}

static void fill(void *object, size_t bytes, size_t id)
{
    unsigned char *at = object;

    for (size_t i = 0; i < bytes; i++) {
        at[i] = pattern_byte(id, i);
    }
}

static bool is_filled(const void *object, size_t bytes, size_t id)
{
    const unsigned char *at = object;

    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != pattern_byte(id, i)) {
            return false;
        }
    }
    return true;
}

/* Pages of address space in use, the first number of proc(5) statm; without malloc. */
static size_t address_space_bytes(void)
{
    char text[128] = "";
    size_t pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

    cr_assert(fd >= 0);
    cr_assert(read(fd, text, sizeof(text) - 1) > 0);
    (void)close(fd);
    cr_assert(sscanf(text, "%zu", &pages) == 1);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* The limit counts objects in use: at the limit NULL, after one return one more, for several sizes
 * and limits, of which some end in the middle of a chunk. */
Test(slab, gives_out_no_more_than_its_limit)
{
    static const struct {
        size_t object_bytes;
        size_t objects_max;
    } cases[] = {{1, 1}, {64, 2}, {100, 9000}, {4096, 300}, {65536, 17}, {3 << 20, 2}};
    static void *objects[9000];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t max = cases[i].objects_max;
        struct slab slab;

        slab_init(&slab, cases[i].object_bytes, max);
        for (size_t j = 0; j < max; j++) {
            cr_assert(slab.objects_in_use == j);
            objects[j] = slab_get(&slab);
            cr_assert(objects[j] != NULL, "case %zu, object %zu", i, j);
        }
        cr_assert(slab_get(&slab) == NULL, "case %zu", i);
        cr_assert(slab_get(&slab) == NULL, "case %zu", i);
        cr_assert(slab.objects_in_use == max);
        slab_put(&slab, objects[max / 2]);
        objects[max / 2] = slab_get(&slab);
        cr_assert(objects[max / 2] != NULL, "case %zu", i);
        cr_assert(slab_get(&slab) == NULL, "case %zu", i);
        for (size_t j = 0; j < max; j++) {
            slab_put(&slab, objects[j]);
        }
        cr_assert(slab.objects_in_use == 0);
        slab_fini(&slab);
    }
}

/* The object returned last is given out first, as its memory is still in the cache: three returned,
 * three given out in the opposite order, then fresh ones. */
Test(slab, gives_out_first_what_was_returned_last)
{
    struct slab slab;
    void *objects[4];

    slab_init(&slab, 200, 10);
    for (size_t i = 0; i < 3; i++) {
        objects[i] = slab_get(&slab);
        cr_assert(objects[i] != NULL);
    }
    for (size_t i = 0; i < 3; i++) {
        slab_put(&slab, objects[i]);
    }
    cr_assert(slab_get(&slab) == objects[2]);
    cr_assert(slab_get(&slab) == objects[1]);
    cr_assert(slab_get(&slab) == objects[0]);
    objects[3] = slab_get(&slab);
    cr_assert(objects[3] != NULL);
    for (size_t i = 0; i < 3; i++) {
        cr_assert(objects[3] != objects[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        slab_put(&slab, objects[i]);
    }
    slab_fini(&slab);
}

/* Objects start at a cache line and take up whole ones, whatever their size: sizes around 64 and
 * beyond a chunk. */
Test(slab, aligns_every_object_to_a_cache_line)
{
    static const size_t sizes[] = {1, 8, 63, 64, 65, 1000, 65536, 65537, 1 << 20, (1 << 20) + 1};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        void *objects[40];
        struct slab slab;

        slab_init(&slab, sizes[i], ARRAY_LEN(objects));
        cr_assert(slab.object_bytes >= sizes[i]);
        cr_assert(slab.object_bytes - sizes[i] < CACHE_LINE_BYTES);
        cr_assert(slab.object_bytes % CACHE_LINE_BYTES == 0);
        for (size_t j = 0; j < ARRAY_LEN(objects); j++) {
            objects[j] = slab_get(&slab);
            cr_assert(objects[j] != NULL);
            cr_assert((uintptr_t)objects[j] % CACHE_LINE_BYTES == 0, "%zu bytes", sizes[i]);
        }
        for (size_t j = 0; j < ARRAY_LEN(objects); j++) {
            slab_put(&slab, objects[j]);
        }
        slab_fini(&slab);
    }
}

/* No two objects share a byte, nor one with the slab's own data: over several chunks all objects
 * are filled over their whole length first and read afterwards. */
Test(slab, objects_do_not_overlap_over_several_chunks)
{
    static const struct {
        size_t object_bytes;
        size_t objects;
    } cases[] = {{1, 40000}, {700, 5000}, {4096, 1000}, {65536, 50}, {(1 << 20) + 8, 3}};
    static void *objects[40000];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slab slab;

        slab_init(&slab, cases[i].object_bytes, cases[i].objects);
        cr_assert(cases[i].objects > 2 * slab.objects_per_chunk, "case %zu: few chunks", i);
        for (size_t j = 0; j < cases[i].objects; j++) {
            objects[j] = slab_get(&slab);
            cr_assert(objects[j] != NULL, "case %zu, object %zu", i, j);
            fill(objects[j], slab.object_bytes, j);
        }
        for (size_t j = 0; j < cases[i].objects; j++) {
            cr_assert(is_filled(objects[j], slab.object_bytes, j), "case %zu, object %zu", i, j);
            slab_put(&slab, objects[j]);
        }
        slab_fini(&slab);
    }
}

/* Memory is asked for in chunks of about 1 MiB, when needed, and all given back by slab_fini(): the
 * process's address space is measured before, at the peak and after. */
Test(slab, maps_when_needed_and_unmaps_everything)
{
    enum { OBJECTS = 50, OBJECT_BYTES = 65536 };
    void *objects[OBJECTS];
    size_t before = address_space_bytes();
    struct slab slab;

    slab_init(&slab, OBJECT_BYTES, 1000000);
    cr_assert(address_space_bytes() == before, "nothing is mapped before the first object");
    for (size_t i = 0; i < OBJECTS; i++) {
        objects[i] = slab_get(&slab);
        cr_assert(objects[i] != NULL);
    }
    cr_assert(address_space_bytes() >= before + (size_t)OBJECTS * OBJECT_BYTES);
    cr_assert(address_space_bytes() <= before + (size_t)OBJECTS * OBJECT_BYTES + (2 << 20));
    for (size_t i = 0; i < OBJECTS; i++) {
        slab_put(&slab, objects[i]);
    }
    slab_fini(&slab);
    cr_assert(address_space_bytes() == before);
}

/* A small limit costs a small mapping: one object of 64 bytes takes a page and no chunk. */
Test(slab, maps_no_more_than_its_limit_needs)
{
    size_t before = address_space_bytes();
    struct slab slab;
    void *object;

    slab_init(&slab, 64, 1);
    object = slab_get(&slab);
    cr_assert(object != NULL);
    cr_assert(address_space_bytes() - before <= (size_t)sysconf(_SC_PAGESIZE));
    slab_put(&slab, object);
    slab_fini(&slab);
}

/* Without memory slab_get() says NULL, the objects in use stay whole, a returned one is given out
 * again, and with memory the slab grows on: RLIMIT_AS is set 3 MiB above what is in use. */
Test(slab, survives_a_failure_of_memory, .disabled = ADDRESS_SANITIZER)
{
    enum { OBJECTS = 200, OBJECT_BYTES = 65536 };
    static void *objects[OBJECTS];
    size_t got = 0;
    struct rlimit limit;
    struct rlimit tight;
    struct slab slab;
    void *again;

    slab_init(&slab, OBJECT_BYTES, OBJECTS);
    cr_assert(getrlimit(RLIMIT_AS, &limit) == 0);
    tight = limit;
    tight.rlim_cur = address_space_bytes() + (3 << 20);
    cr_assert(setrlimit(RLIMIT_AS, &tight) == 0);
    while (got < OBJECTS && (objects[got] = slab_get(&slab)) != NULL) {
        fill(objects[got], OBJECT_BYTES, got);
        got++;
    }
    again = slab_get(&slab);
    cr_assert(setrlimit(RLIMIT_AS, &limit) == 0);
    cr_assert(again == NULL);
    cr_assert(got > 0 && got < OBJECTS, "got %zu", got);
    cr_assert(slab.objects_in_use == got);

    cr_assert(setrlimit(RLIMIT_AS, &tight) == 0);
    slab_put(&slab, objects[0]);
    again = slab_get(&slab);
    cr_assert(setrlimit(RLIMIT_AS, &limit) == 0);
    cr_assert(again == objects[0]);
    fill(objects[0], OBJECT_BYTES, 0);

    for (; got < OBJECTS; got++) {
        objects[got] = slab_get(&slab);
        cr_assert(objects[got] != NULL);
        fill(objects[got], OBJECT_BYTES, got);
    }
    for (size_t i = 0; i < OBJECTS; i++) {
        cr_assert(is_filled(objects[i], OBJECT_BYTES, i), "object %zu", i);
        slab_put(&slab, objects[i]);
    }
    slab_fini(&slab);
}

/* Clean-up code need not know how far set-up came: returning NULL, ending a zeroed slab, an unused
 * one, and one that is ended already are all harmless. */
Test(slab, accepts_null_and_slabs_without_memory)
{
    struct slab zeroed = {0};
    struct slab unused;

    slab_fini(&zeroed);
    slab_init(&unused, 10, 10);
    slab_put(&unused, NULL);
    cr_assert(unused.objects_in_use == 0);
    slab_fini(&unused);
    slab_fini(&unused);
}

#ifdef SLUICE_DEBUG
/* A use after return must show in debug builds: a returned object is the pattern all over, but for
 * the link that the free list keeps at its start. */
Test(slab, overwrites_returned_objects_in_debug_builds)
{
    enum { OBJECT_BYTES = 1000 };
    struct slab slab;
    unsigned char *object;

    slab_init(&slab, OBJECT_BYTES, 4);
    object = slab_get(&slab);
    cr_assert(object != NULL);
    memset(object, 0x11, OBJECT_BYTES);
    slab_put(&slab, object);
    for (size_t i = sizeof(void *); i < slab.object_bytes; i++) {
        cr_assert(object[i] == RETURNED_PATTERN, "byte %zu is %#x", i, object[i]);
    }
    cr_assert(slab_get(&slab) == object);
    slab_put(&slab, object);
    slab_fini(&slab);
}
#endif

/* Ending a slab while an object is out would leave a dangling pointer: it aborts. */
Test(slab, fini_aborts_while_an_object_is_out, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct slab slab;

    slab_init(&slab, 10, 10);
    cr_assert(slab_get(&slab) != NULL);
    slab_fini(&slab);
}

/* More returns than gets are a bug and abort: one object returned twice. */
Test(slab, put_aborts_when_nothing_is_out, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct slab slab;
    void *object;

    slab_init(&slab, 10, 10);
    object = slab_get(&slab);
    slab_put(&slab, object);
    slab_put(&slab, object);
}

/* A slab of nothings is a bug and aborts. */
Test(slab, init_aborts_without_an_object_size, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct slab slab;

    slab_init(&slab, 0, 10);
}

/* A limit of none is a bug and aborts. */
Test(slab, init_aborts_without_a_limit, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct slab slab;

    slab_init(&slab, 10, 0);
}

enum { MODEL_OBJECTS = 600, MODEL_OPERATIONS = 60000 };

/* What is out, by position: NULL or an object filled with the pattern of its id. */
struct model {
    uint64_t seed;
    size_t operation;
    size_t object_bytes;
    size_t in_use;
    size_t next_id;
    struct slab slab;
    void *objects[MODEL_OBJECTS];
    size_t ids[MODEL_OBJECTS];
};

#define MODEL_ASSERT(model, condition)                                                             \
    cr_assert((condition), "seed %" PRIu64 ", %zu bytes, operation %zu: %s", (model)->seed,        \
              (model)->object_bytes, (model)->operation, #condition)

static void model_get(struct model *model, size_t position)
{
    void *object = slab_get(&model->slab);

    MODEL_ASSERT(model, (object == NULL) == (model->in_use == model->slab.objects_max));
    if (object != NULL) {
        model->in_use++;
        model->objects[position] = object;
        model->ids[position] = model->next_id++;
        fill(object, model->object_bytes, model->ids[position]);
    }
}

static void model_put(struct model *model, size_t position)
{
    void *object = model->objects[position];

    MODEL_ASSERT(model, is_filled(object, model->object_bytes, model->ids[position]));
    slab_put(&model->slab, object);
    model->objects[position] = NULL;
    model->in_use--;
}

static void model_play(uint64_t seed, size_t object_bytes, size_t objects_max)
{
    static struct model model;
    uint64_t random = seed;

    model = (struct model){.seed = seed, .object_bytes = object_bytes};
    slab_init(&model.slab, object_bytes, objects_max);
    for (; model.operation < MODEL_OPERATIONS; model.operation++) {
        size_t position = next_random(&random) % MODEL_OBJECTS;

        if (model.objects[position] == NULL) {
            model_get(&model, position);
        } else if (model.operation / 5000 % 2 == 0 || next_random(&random) % 8 == 0) {
            model_put(&model, position);
        }
        MODEL_ASSERT(&model, model.slab.objects_in_use == model.in_use);
    }
    for (size_t i = 0; i < MODEL_OBJECTS; i++) {
        if (model.objects[i] != NULL) {
            model_put(&model, i);
        }
    }
    slab_fini(&model.slab);
}

/* In any order of gets and puts an object keeps its bytes until it is returned, and the limit is
 * kept: random operations on up to 600 objects, in phases of plenty and at the limit. */
Test(slab, objects_keep_their_bytes_over_random_operations)
{
    model_play(1, 24, 400);
    model_play(2, 3000, MODEL_OBJECTS);
    model_play(20261122, 1000, 350);
}
