/* Layer: conf. The configuration as plain data: what the user wrote, checked but not looked up. */
#ifndef CONF_CONFIG_H
#define CONF_CONFIG_H

#include "net/addr.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { USER_NAME_BYTES = 64 };

/** In the order of the words in schema.c. */
enum config_splice { CONFIG_SPLICE_AUTO, CONFIG_SPLICE_ALWAYS, CONFIG_SPLICE_NEVER };
enum config_log { CONFIG_LOG_TEXT, CONFIG_LOG_JSON, CONFIG_LOG_NONE };

/** One number of 64 bits per setting, so that the schema can name it by its offset. 0 stands for
 *  `auto` or `off` where the schema allows that word. Times in nanoseconds, sizes in bytes. */
struct settings {
    uint64_t workers;
    uint64_t max_connections;
    uint64_t connect_timeout_ns;
    uint64_t idle_timeout_ns;
    uint64_t fin_timeout_ns;
    uint64_t drain_timeout_ns;
    uint64_t keepalive_idle_ns;
    uint64_t keepalive_interval_ns;
    uint64_t user_timeout_ns;
    uint64_t splice; /* enum config_splice */
    uint64_t pipe_size_bytes;
    uint64_t busy_poll_ns;
    uint64_t log;                 /* enum config_log */
    char source[ADDR_TEXT_BYTES]; /* an address without port; empty: the kernel chooses */
    char user[USER_NAME_BYTES];   /* empty: stay who we are */
};

struct config_server {
    char *text; /* owned: as written; also its name in records */
    struct endpoint target;
};

struct config_pool {
    char *name;                    /* owned */
    struct config_server *servers; /* owned */
    size_t servers_len;
};

struct config_listener {
    char *name; /* owned: as written */
    struct endpoint bind;
    size_t pool; /* index into config.pools */
};

struct config {
    struct settings settings;
    struct config_listener *listeners; /* owned */
    size_t listeners_len;
    struct config_pool *pools; /* owned */
    size_t pools_len;
};

/** Everything at its default, no listener. */
void config_init(struct config *config);

/** Frees what the configuration owns; it may be half-built. */
void config_fini(struct config *config);

/** Adds a pool or listener, a server to a pool; copies the text. They abort without memory: this is
 *  start-up, and there is nothing to serve yet. The new pool's index is returned. */
size_t config_add_pool(struct config *config, const char *name);
void config_add_server(struct config *config, size_t pool, const char *text,
                       const struct endpoint *target);
void config_add_listener(struct config *config, const char *name, const struct endpoint *bind,
                         size_t pool);

/** Prints all of it, defaults included, in the syntax of the configuration file. */
void config_print(const struct config *config, FILE *out);

#endif
