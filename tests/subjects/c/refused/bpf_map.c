/* A BPF map: refused by name. */
#include "../subject.h"
#include <linux/bpf.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 3};
    if (syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr) < 0)
        subject_skip("BPF (CAP_BPF)");
    subject_wait(NULL);
    subject_pass();
}
