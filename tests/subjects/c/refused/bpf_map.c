/* What of BPF is refused by name: programs, types, maps that cannot be read whole or that somebody else has. */
#include "../bpf.h"
#include <linux/btf.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int array(uint32_t flags)
{
    return BPF_MADE(.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 3,
                    .map_flags = flags);
}

/* A process that is no child of ours (any more) has all we have until we end, and does `then`. */
static void give_away(void (*then)(void))
{
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    pid_t between = (pid_t)MUST(fork());
    if (!between) {
        close(ends[1]);
        if (MUST(fork()))
            _exit(0);
        char byte;
        while (read(ends[0], &byte, 1) < 0)
            ;
        if (then)
            then();
        _exit(0);
    }
    MUST(waitpid(between, NULL, 0));
    close(ends[0]);
}

static int program(int map)
{
    struct bpf_insn program[] = {
        {.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
        {0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K},
        {.code = BPF_JMP | BPF_EXIT},
    };
    return (int)MUST(BPF(BPF_PROG_LOAD, .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 4,
                         .insns = (uintptr_t)program, .license = (uintptr_t)"GPL"));
}

static void use(int map)
{
    int loaded = program(map);
    int s = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(setsockopt(s, SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof loaded));
    close(loaded);
}

/* For a key and a value that are integers. */
static int types(void)
{
    struct {
        struct btf_header header;
        uint32_t types[8];
        char names[8];
    } btf = {
        .header = {.magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof btf.header, .type_len = 32,
                   .str_off = 32, .str_len = 5},
        .types = {1, BTF_KIND_INT << 24, 4, 32, 3, BTF_KIND_INT << 24, 8, 64},
        .names = "\0i\0l",
    };
    return (int)MUST(BPF(BPF_BTF_LOAD, .btf = (uintptr_t)&btf, .btf_size = sizeof btf.header + 32 + 5));
}

static void make_typed(void)
{
    int types_of_it = types();
    BPF_MADE(.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 3,
             .btf_fd = (unsigned)types_of_it, .btf_key_type_id = 1, .btf_value_type_id = 2);
    close(types_of_it);
}

static void unpin(void)
{
    umount(subject_path("pins"));
    rmdir(subject_path("pins"));
}

static void pin(int map)
{
    const char *folder = subject_path("pins");
    MUST(mkdir(folder, 0700));
    if (mount("bpf", folder, "bpf", 0, NULL) < 0) {
        rmdir(folder);
        subject_skip("no BPF file system (%s)", strerror(errno));
    }
    char name[PATH_MAX + 8];
    snprintf(name, sizeof name, "%s/map", folder);
    MUST(BPF(BPF_OBJ_PIN, .pathname = (uintptr_t)name, .bpf_fd = (unsigned)map));
    close(map);
    give_away(unpin); /* should we be killed */
    MUST(BPF(BPF_OBJ_GET, .pathname = (uintptr_t)name));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "queue";
    bool pinned = strcmp(what, "pinned") == 0;
    if (strcmp(what, "queue") == 0)
        BPF_MADE(.map_type = BPF_MAP_TYPE_QUEUE, .value_size = 8, .max_entries = 3);
    else if (strcmp(what, "ring") == 0)
        BPF_MADE(.map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = 4096);
    else if (strcmp(what, "large") == 0)
        BPF_MADE(.map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 1 << 20, .max_entries = 70,
                 .map_flags = BPF_F_NO_PREALLOC);
    else if (strcmp(what, "maps") == 0)
        BPF_MADE(.map_type = BPF_MAP_TYPE_ARRAY_OF_MAPS, .key_size = 4, .value_size = 4, .max_entries = 3,
                 .inner_map_fd = (unsigned)array(0));
    else if (strcmp(what, "mapped") == 0)
        MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, array(BPF_F_MMAPABLE), 0));
    else if (strcmp(what, "typed") == 0)
        make_typed();
    else if (strcmp(what, "used") == 0)
        use(array(0));
    else if (strcmp(what, "program") == 0) {
        int map = array(0);
        program(map);
        close(map);
    } else if (strcmp(what, "types") == 0)
        types();
    else if (pinned)
        pin(array(0));
    else if (strcmp(what, "outside") == 0)
        array(0), give_away(NULL);
    else
        subject_fail("no such map: %s", what);
    subject_wait(NULL);
    if (pinned)
        unpin();
    subject_pass();
}
