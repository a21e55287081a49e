/* The devices that everybody may open: null, zero, full, random, urandom; by argument by a node that is gone (privileged). */
#include "../subject.h"
#include <sys/sysmacros.h>

static void removed(void)
{
    struct stat before, after;
    uint64_t word = 1;
    if (mknod(subject_path("node"), S_IFCHR | 0600, makedev(1, 5)))
        subject_skip("mknod: %s", strerror(errno));
    MUST(chmod(subject_path("node"), 0640));
    MUST(chown(subject_path("node"), 11, 12));
    int node = open(subject_path("node"), O_RDONLY);
    unlink(subject_path("node"));
    if (node < 0)
        subject_skip("nodes of devices here: %s", strerror(errno));
    MUST(fstat(node, &before));
    subject_wait(NULL);
    MUST(fstat(node, &after));
    EXPECT(after.st_mode == before.st_mode && after.st_rdev == before.st_rdev, "another mode or device");
    EXPECT(after.st_uid == 11 && after.st_gid == 12 && after.st_nlink == 0, "another owner, or it has a name");
    EXPECT(read(node, &word, 8) == 8 && word == 0, "it is not zero");
    subject_pass();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2)
        removed();
    int null = (int)MUST(open("/dev/null", O_RDWR)), zero = (int)MUST(open("/dev/zero", O_RDONLY));
    int full = (int)MUST(open("/dev/full", O_WRONLY)), random = (int)MUST(open("/dev/urandom", O_RDONLY));
    subject_wait(NULL);
    uint64_t word = 1, other = 0;
    EXPECT(read(null, &word, 8) == 0 && write(null, &word, 8) == 8, "/dev/null");
    EXPECT(read(zero, &word, 8) == 8 && word == 0, "/dev/zero");
    EXPECT(write(full, &word, 8) == -1 && errno == ENOSPC, "/dev/full");
    EXPECT(read(random, &word, 8) == 8 && read(random, &other, 8) == 8 && word != other, "/dev/urandom");
    subject_pass();
}
