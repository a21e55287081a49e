/* A BPF map of each kind that can be read whole: its settings, all entries, and how many more fit. */
#include "../bpf.h"

enum { MOST = 700, ENTRIES = 635, FEWER = 510, VALUE = 20, MOST_PROCESSORS = 1024 };

static const struct {
    const char *name;
    uint32_t type, flags, key_size;
    bool per_processor;
} KINDS[] = {
    {"hash", BPF_MAP_TYPE_HASH, 0, 12, false},
    {"sparse", BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC | BPF_F_ZERO_SEED, 12, false},
    {"array", BPF_MAP_TYPE_ARRAY, BPF_F_RDONLY_PROG | BPF_F_MMAPABLE, 4, false},
    {"percpu_hash", BPF_MAP_TYPE_PERCPU_HASH, 0, 12, true},
    {"percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, 0, 4, true},
    {"lru", BPF_MAP_TYPE_LRU_HASH, 0, 12, false},
};
static size_t kind;
static int map, processors = 1;
static bool dropped[ENTRIES]; /* by an LRU hash, which has not room for all; on two processors it is full then */
static char value[(VALUE + 4) * MOST_PROCESSORS], wanted[sizeof value];

static bool is_array(void)
{
    return KINDS[kind].key_size == 4;
}

static bool is_lru(void)
{
    return KINDS[kind].type == BPF_MAP_TYPE_LRU_HASH;
}

static uint32_t *key_of(uint32_t number)
{
    static uint32_t key[3];
    memcpy(key, (uint32_t[]){number, is_array() ? 0 : ~number, 7}, sizeof key);
    return key;
}

static void expected(uint32_t number)
{
    memset(wanted, 0, sizeof wanted);
    for (int i = 0; i < processors; i++)
        subject_fill(wanted + i * (VALUE + 4), VALUE, number * 1000u + (unsigned)i);
}

static void check(void)
{
    for (uint32_t number = 0; number < ENTRIES; number++) {
        memset(value, 0, sizeof value);
        bool there = bpf_get(map, key_of(number), value) == 0;
        EXPECT(there != dropped[number], "entry %u is %s", number, there ? "there again" : "gone");
        if (!there)
            continue;
        expected(number);
        for (int i = 0; i < processors; i++)
            EXPECT(!memcmp(value + i * (VALUE + 4), wanted + i * (VALUE + 4), VALUE), "entry %u differs", number);
    }
    memset(wanted, 0, sizeof wanted);
    for (uint32_t number = ENTRIES; number < MOST; number++)
        if (is_array())
            EXPECT(bpf_get(map, key_of(number), value) == 0 && !memcmp(value, wanted, VALUE), "entry %u is set", number);
        else
            EXPECT(bpf_get(map, key_of(number), value) < 0 && errno == ENOENT, "there is an entry %u", number);
}

static void spoil(void)
{
    memset(value, 1, sizeof value);
    for (uint32_t number = ENTRIES / 2; number < MOST - 10; number++)
        MUST(bpf_put(map, key_of(number), value));
    for (uint32_t number = 0; number < ENTRIES / 3 && !is_array(); number++)
        BPF(BPF_MAP_DELETE_ELEM, .map_fd = (unsigned)map, .key = (uintptr_t)key_of(number));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    while (argc > 2 && strcmp(KINDS[kind].name, argv[2]) != 0)
        EXPECT(++kind < sizeof KINDS / sizeof *KINDS, "no such kind: %s", argv[2]);
    if (KINDS[kind].per_processor) {
        processors = (int)sysconf(_SC_NPROCESSORS_CONF);
        EXPECT(processors <= MOST_PROCESSORS, "too many processors");
    }
    map = BPF_MADE(.map_type = KINDS[kind].type, .key_size = KINDS[kind].key_size, .value_size = VALUE,
                   .max_entries = is_lru() ? FEWER : MOST, .map_flags = KINDS[kind].flags, .map_name = "subject_map");
    for (uint32_t number = 0; number < ENTRIES; number++) {
        expected(number);
        MUST(bpf_put(map, key_of(number), wanted));
    }
    for (uint32_t number = 0; number < ENTRIES && is_lru(); number++)
        dropped[number] = bpf_get(map, key_of(number), value) < 0;
    check();
    struct bpf_map_info before = bpf_facts(map);

    subject_wait(spoil);

    struct bpf_map_info after = bpf_facts(map);
    after.id = before.id; /* the host's number of it, which is another */
    EXPECT(!memcmp(&before, &after, sizeof before), "other settings");
    check();
    memset(value, 2, sizeof value);
    for (uint32_t number = ENTRIES; number < MOST; number++)
        EXPECT(bpf_put(map, key_of(number), value) == 0, "no room for entry %u: %s", number, strerror(errno));
    EXPECT(is_lru() || (bpf_put(map, key_of(MOST), value) < 0 && errno == E2BIG),
           "it has become larger");
    subject_pass();
}
