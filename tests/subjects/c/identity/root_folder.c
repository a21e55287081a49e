/* A root folder of its own (privileged). */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char inside[PATH_MAX], folder[PATH_MAX], *name;
    snprintf(folder, sizeof folder, "%s", subject_base);
    name = strrchr(folder, '/');
    *name = 0;
    snprintf(inside, sizeof inside, "/%s", name + 1);
    if (chroot(folder))
        subject_skip("CAP_SYS_CHROOT");
    MUST(chdir("/"));
    subject_begin(2, (char *[]){argv[0], inside});
    subject_wait(NULL);
    EXPECT(access("/proc", F_OK) == -1, "the root folder is the host's");
    EXPECT(access(subject_go, F_OK) == 0, "the root folder is another one");
    subject_pass();
}
