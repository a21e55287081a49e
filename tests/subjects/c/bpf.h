/* bpf(2) for subjects: the C library has no function for it. */
#ifndef SUBJECT_BPF_H
#define SUBJECT_BPF_H

#include "subject.h"
#include <linux/bpf.h>
#include <sys/syscall.h>

UNUSED static long bpf(int command, union bpf_attr attr)
{
    return syscall(SYS_bpf, command, &attr, sizeof attr);
}
#define BPF(command, ...) bpf(command, (union bpf_attr){__VA_ARGS__})

UNUSED static int bpf_made(union bpf_attr attr)
{
    long fd = bpf(BPF_MAP_CREATE, attr);
    if (fd < 0)
        subject_skip("BPF maps of type %u (%s)", attr.map_type, strerror(errno));
    return (int)fd;
}
#define BPF_MADE(...) bpf_made((union bpf_attr){__VA_ARGS__})

UNUSED static long bpf_get(int fd, const void *key, void *value)
{
    return BPF(BPF_MAP_LOOKUP_ELEM, .map_fd = (unsigned)fd, .key = (uintptr_t)key, .value = (uintptr_t)value);
}

UNUSED static long bpf_put(int fd, const void *key, const void *value)
{
    return BPF(BPF_MAP_UPDATE_ELEM, .map_fd = (unsigned)fd, .key = (uintptr_t)key, .value = (uintptr_t)value);
}

UNUSED static struct bpf_map_info bpf_facts(int fd)
{
    struct bpf_map_info info = {0};
    MUST(BPF(BPF_OBJ_GET_INFO_BY_FD,
             .info = {.bpf_fd = (unsigned)fd, .info_len = sizeof info, .info = (uintptr_t)&info}));
    return info;
}

#endif
