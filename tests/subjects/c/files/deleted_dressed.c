/*
 * What belongs to a deleted file besides its contents: mode, times, hint, extended attributes. It was read in the
 * future, so that a dump, which reads it, changes nothing of that (mount(8), relatime).
 */
#include "../subject.h"
#include <sys/xattr.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_EXCL, 0600));
    int reader = (int)MUST(open(subject_path("file"), O_RDONLY));
    MUST(write(fd, "contents", 8));
    bool has_attributes = fsetxattr(fd, "user.subject", "value", 5, 0) == 0;
    struct timespec times[2] = {{time(NULL) + 100000, 5}, {2000, 7}};
    MUST(futimens(fd, times));
    uint64_t hint = RWH_WRITE_LIFE_SHORT, hint_now = 0;
    bool hinted = fcntl(fd, F_SET_RW_HINT, &hint) == 0;
    MUST(fchmod(fd, 0466)); /* its owner may not write to it any more */
    MUST(unlink(subject_path("file")));
    struct stat before, after;
    MUST(fstat(fd, &before));
    subject_wait(NULL);

    MUST(fstat(reader, &after));
    EXPECT(after.st_mode == before.st_mode, "the mode is %o, not %o", after.st_mode, before.st_mode);
    EXPECT(after.st_uid == before.st_uid && after.st_gid == before.st_gid, "the owner is %u", after.st_uid);
    EXPECT(after.st_mtim.tv_sec == 2000 && after.st_mtim.tv_nsec == 7, "the time is %ld", (long)after.st_mtim.tv_sec);
    EXPECT(after.st_atim.tv_sec == before.st_atim.tv_sec && after.st_atim.tv_nsec == before.st_atim.tv_nsec,
           "it was read at %ld, not %ld", (long)after.st_atim.tv_sec, (long)before.st_atim.tv_sec);
    if (hinted)
        EXPECT(fcntl(fd, F_GET_RW_HINT, &hint_now) == 0 && hint_now == hint, "the hint is %d", (int)hint_now);
    char bytes[16];
    EXPECT(pread(reader, bytes, sizeof bytes, 0) == 8 && memcmp(bytes, "contents", 8) == 0, "other contents");
    if (has_attributes)
        EXPECT(fgetxattr(reader, "user.subject", bytes, sizeof bytes) == 5, "no extended attribute");
    EXPECT(pwrite(fd, "C", 1, 0) == 1 && pread(reader, bytes, 1, 0) == 1 && bytes[0] == 'C', "two files");
    subject_pass();
}
