/* Preloaded into a Python that uses a store: at the nth call that changes the store, the process is killed, or the call
   fails because the disk is full. Counts calls of all threads; paths outside the store are not counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OFF, KILL, FULL_ONCE, FULL };

static char root[4096];
static atomic_int mode, left, seen;

void faults_arm(const char *store, int how, int at) {
    strncpy(root, store, sizeof root - 1);
    atomic_store(&seen, 0);
    atomic_store(&left, at);
    atomic_store(&mode, how);
}

int faults_seen(void) { return atomic_load(&seen); }

static int inside(int folder, const char *path) {
    char found[4096], link[64];
    if (path && path[0] == '/')
        return !strncmp(path, root, strlen(root));
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, found, sizeof found - 1);
    return size > 0 && !strncmp(found, root, strlen(root));
}

/* Whether the call is to fail; it needs room when `takes` is set. Does not return where the process is to die. */
static int fault(int folder, const char *path, int takes) {
    int how = atomic_load(&mode);
    if (how == OFF || !inside(folder, path) || (how != KILL && !takes))
        return 0;
    int number = atomic_fetch_add(&seen, 1);
    if (how == KILL && number == atomic_load(&left))
        kill(getpid(), SIGKILL);
    if ((how == FULL_ONCE && number == atomic_load(&left)) || (how == FULL && number >= atomic_load(&left))) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int open(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); int bits = va_arg(more, int); va_end(more);
    REAL(open);
    return (flags & O_CREAT) && access(path, F_OK) && fault(-1, path, 1) ? -1 : real(path, flags, bits);
}
int open64(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); int bits = va_arg(more, int); va_end(more);
    REAL(open64);
    return (flags & O_CREAT) && access(path, F_OK) && fault(-1, path, 1) ? -1 : real(path, flags, bits);
}
ssize_t write(int fd, const void *data, size_t size) { REAL(write); return fault(fd, 0, 1) ? -1 : real(fd, data, size); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64); return fault(fd, 0, 1) ? -1 : real(fd, data, size, at);
}
int mkdir(const char *path, mode_t bits) { REAL(mkdir); return fault(-1, path, 1) ? -1 : real(path, bits); }
int link(const char *old, const char *new) { REAL(link); return fault(-1, new, 1) ? -1 : real(old, new); }
int rename(const char *old, const char *new) { REAL(rename); return fault(-1, new, 0) ? -1 : real(old, new); }
int unlink(const char *path) { REAL(unlink); return fault(-1, path, 0) ? -1 : real(path); }
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat); return fault(folder, path, 0) ? -1 : real(folder, path, flags);
}
int rmdir(const char *path) { REAL(rmdir); return fault(-1, path, 0) ? -1 : real(path); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fault(fd, 0, 0) ? -1 : real(fd, size); }
