/* Test support: a network of the test's own. The test's process moves into a fresh network
 * namespace, with nothing in it but loopback, where it may set routes, rules and sysctls as it
 * likes. All of it is gone when the process and the sluice it started are gone.
 *
 * Needs root, `ip` and `nft`; where these are missing, the test is skipped and says why. */
#ifndef SUPPORT_NETNS_H
#define SUPPORT_NETNS_H

#include <stdint.h>

/** The two ends of the cable that netns_add_far() lays. */
#define NETNS_NEAR_IP  "10.77.0.1"
#define NETNS_FAR_IP   "10.77.0.2"
#define NETNS_NEAR_IP6 "fd77::1"
#define NETNS_FAR_IP6  "fd77::2"

/** Moves the calling thread, and what it forks from now on, into a fresh namespace. */
void netns_enter(void);

/** Makes a second one, reached from the first by a veth pair: a peer there can vanish. */
void netns_add_far(void);

/** Which of the two the calling thread makes its next sockets in; netns_enter() leaves it near. */
void netns_go_far(void);
void netns_go_near(void);

/** Takes the far end's cable out: from now on nothing is answered, and nothing is told. */
void netns_unplug(void);

/** Runs a shell command made from `format`; the test fails if that fails. */
__attribute__((format(printf, 1, 2))) void netns_run(const char *format, ...);

/** Drops every SYN for this TCP port of this namespace, as a firewall does that says nothing. */
void netns_drop_syn(unsigned port);

/** Adds a rule of nft(8) for what comes into this namespace, such as "tcp flags rst drop". Counted:
 *  netns_hits() says how many packets met any of these rules. netns_clear() takes them all away. */
__attribute__((format(printf, 1, 2))) void netns_rule(const char *format, ...);
uint64_t netns_hits(void);
void netns_clear(void);

/** The largest packet of the cable, at both ends. */
void netns_set_mtu(unsigned bytes);
/** Each segment travels alone at both ends of the cable, as on a wire: no merging, no splitting. */
void netns_one_segment_a_packet(void);
/** Both ends of the cable carry no more than this, with a short queue. */
void netns_set_rate(unsigned megabits);

/** Sets net.ipv4.`name` of this namespace. */
void netns_set(const char *name, const char *value);

/** A counter of this namespace: /proc/net/netstat, such as "TCPFromZeroWindowAdv", and those of
 *  /proc/net/snmp that have a name of their own, such as "AttemptFails". */
uint64_t netns_counter(const char *name);

#endif
