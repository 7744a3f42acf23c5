/* Preloaded into the routers of a chaos run, for what cannot be done to one process from outside:
 * - steps of the wall clock: POSTRIDER_CHAOS_CLOCK names a file of 8 bytes, the offset in nanoseconds;
 * - who sent a request: POSTRIDER_CHAOS_ADDRESS is the loopback address that connections are made from;
 * - the end of the harness is the end of its routers.
 * The monotonic clock is left alone, as a real step of the wall clock leaves it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none = 0;
static volatile int64_t *offset = &none;
static struct in_addr own;

__attribute__((constructor)) static void begin(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *address = getenv("POSTRIDER_CHAOS_ADDRESS");
    if (address) inet_aton(address, &own);
    const char *path = getenv("POSTRIDER_CHAOS_CLOCK");
    if (!path) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *page = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset = page;
}

static struct timespec moved(struct timespec at, int64_t by) {
    int64_t nanoseconds = at.tv_nsec + by % 1000000000;
    at.tv_sec += by / 1000000000 + (nanoseconds >= 1000000000) - (nanoseconds < 0);
    at.tv_nsec = (nanoseconds + 1000000000) % 1000000000;
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = (int)syscall(SYS_clock_gettime, clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *at = moved(*at, *offset);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, at) == 0 ? base : 0;
}

/* Deadlines on the wall clock were reckoned with the clock above; the kernel waits by its own. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!next) {
        /* The oldest version would be found by plain dlsym, and it has another layout. */
        next = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        if (!next) next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct timespec real = moved(*until, -*offset);
    return next(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*next)(cnd_t *, mtx_t *, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec real = moved(*until, -*offset);
    return next(condition, mutex, &real);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    if (own.s_addr && address->sa_family == AF_INET) {
        const struct sockaddr_in *to = (const struct sockaddr_in *)address;
        if ((ntohl(to->sin_addr.s_addr) >> 24) == 127) {
            struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = own};
            int yes = 1;
            setsockopt(socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
            /* A socket that has an address already keeps it. */
            (void)bind(socket, (struct sockaddr *)&from, sizeof from);
        }
    }
    return (int)syscall(SYS_connect, socket, address, length);
}
