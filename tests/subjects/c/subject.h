/*
 * What every subject shares. A subject is a tiny program with one resource of the OS kernel in a known state. It is
 * called with one argument, BASE, and talks to the harness by files, so that nothing it waits for is under test:
 *
 *   it sets up, then opens the FIFO BASE.ready for writing      the harness may dump it
 *   BASE.spoil appears: it breaks its own state,
 *     removes that file and opens the FIFO BASE.spoiled         a rewind must undo this
 *   BASE.go appears: it compares its state with what it set up,
 *     writes PASS, FAIL: why or SKIP: why to BASE.result        and exits with 0, 1 or 77
 *
 * All checks compare with values from before the wait.
 */
#ifndef SUBJECT_H
#define SUBJECT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

static char subject_base[PATH_MAX / 2];
static char subject_go[PATH_MAX], subject_spoil[PATH_MAX];
static pid_t subject_root;

UNUSED static const char *subject_path(const char *suffix)
{
    static __thread char paths[8][PATH_MAX];
    static __thread unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, PATH_MAX, "%s.%s", subject_base, suffix);
    return path;
}

/* The result file appears whole or not at all, and only the first verdict counts. */
UNUSED _Noreturn static void subject_finish(int status, const char *verdict, const char *format, va_list args)
{
    char text[600], why[500] = "";
    if (format)
        vsnprintf(why, sizeof why, format, args);
    int length = snprintf(text, sizeof text, "%s%s\n", verdict, why);
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s.part.%d", subject_base, (int)getpid());
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) /* every descriptor may be in use by the subject */
        close(0), close(1), fd = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (write(fd, text, (size_t)length) != length || close(fd) || link(part, subject_path("result")))
        status = status ? status : 1;
    unlink(part);
    _exit(status);
}

UNUSED _Noreturn static void subject_pass(void)
{
    va_list none = {0};
    subject_finish(0, "PASS", NULL, none);
}

#define SUBJECT_VERDICT(name, status, word)                                                                           \
    UNUSED __attribute__((format(printf, 1, 2))) _Noreturn static void name(const char *format, ...)                  \
    {                                                                                                                 \
        va_list args;                                                                                                 \
        va_start(args, format);                                                                                       \
        subject_finish(status, word, format, args);                                                                   \
    }
SUBJECT_VERDICT(subject_fail, 1, "FAIL: ")
SUBJECT_VERDICT(subject_skip, 77, "SKIP: ")

/* EXPECT(condition, what the state is instead, …) */
#define EXPECT(condition, ...)                                                                                        \
    do {                                                                                                              \
        if (!(condition))                                                                                             \
            subject_fail(__VA_ARGS__);                                                                                \
    } while (0)

UNUSED static long subject_must(long result, const char *call, int line)
{
    int cause = errno;
    EXPECT(result != -1, "line %d: %s: %s", line, call, strerror(cause));
    return result;
}
/* MUST(call): the call's result, or FAIL naming it */
#define MUST(call) subject_must((long)(call), #call, __LINE__)
#define MUST_MAP(call) ((void *)subject_must((long)(call), #call, __LINE__))
/* MUST0(call): for calls that return an error number, as pthread_* do */
#define MUST0(call)                                                                                                   \
    do {                                                                                                              \
        int error_ = (call);                                                                                          \
        EXPECT(error_ == 0, "line %d: %s: %s", __LINE__, #call, strerror(error_));                                    \
    } while (0)

UNUSED static void subject_begin(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s BASE: see subject.h\n", argv[0]);
        _exit(2);
    }
    snprintf(subject_base, sizeof subject_base, "%s", argv[1]);
    snprintf(subject_go, sizeof subject_go, "%s.go", subject_base);
    snprintf(subject_spoil, sizeof subject_spoil, "%s.spoil", subject_base);
    subject_root = getpid();
}

UNUSED static void subject_announce(const char *what)
{
    int fd;
    while ((fd = open(subject_path(what), O_WRONLY | O_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (fd >= 0)
        close(fd);
}

UNUSED static void subject_tick(void)
{
    struct timespec tick = {.tv_nsec = 2000000};
    nanosleep(&tick, NULL);
}

/* Wait until all other threads of this process, `count` of them, sleep in a system call. */
UNUSED static void subject_all_asleep(int count)
{
    for (int asleep = 0; asleep != count; subject_tick()) {
        asleep = 0;
        DIR *tasks = opendir("/proc/self/task");
        for (struct dirent *task; tasks && (task = readdir(tasks));) {
            char path[300], line[512] = "", *end;
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", task->d_name);
            FILE *stat = atoi(task->d_name) ? fopen(path, "r") : NULL;
            if (!stat)
                continue;
            if (fgets(line, sizeof line, stat) && (end = strrchr(line, ')')) && end[2] == 'S')
                asleep++;
            fclose(stat);
        }
        closedir(tasks);
    }
}

/* Be ready, and wait to go on. `spoil` breaks the state under test; NULL where there is no way to. */
UNUSED static void subject_wait(void (*spoil)(void))
{
    subject_announce("ready");
    while (access(subject_go, F_OK) != 0) {
        if (spoil && access(subject_spoil, F_OK) == 0) {
            spoil();
            unlink(subject_spoil);
            subject_announce("spoiled");
        }
        subject_tick();
    }
}

/* --- contents that differ at every place, from a seed --- */

UNUSED static uint64_t subject_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

UNUSED static void subject_fill(void *area, size_t size, uint64_t seed)
{
    unsigned char *bytes = area;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(subject_mix(seed + i / 8) >> (i % 8 * 8));
}

/* The offset of the first byte that differs from what subject_fill wrote, or -1. */
UNUSED static long subject_differs(const void *area, size_t size, uint64_t seed)
{
    const unsigned char *bytes = area;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)(subject_mix(seed + i / 8) >> (i % 8 * 8)))
            return (long)i;
    return -1;
}
#define EXPECT_FILLED(area, size, seed, what)                                                                         \
    do {                                                                                                              \
        long at_ = subject_differs(area, size, seed);                                                                 \
        EXPECT(at_ < 0, "%s: the byte at %ld differs", what, at_);                                                    \
    } while (0)

UNUSED static double subject_now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The value after `key` in /proc/self/FILE, as in status; empty when absent. */
UNUSED static const char *subject_proc(const char *file, const char *key)
{
    static char line[4096];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/%s", file);
    FILE *stream = fopen(path, "r");
    if (!stream)
        return "";
    while (fgets(line, sizeof line, stream))
        if (strncmp(line, key, strlen(key)) == 0) {
            fclose(stream);
            line[strcspn(line, "\n")] = 0;
            return line + strlen(key);
        }
    fclose(stream);
    return "";
}

#endif
