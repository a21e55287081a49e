/* Mode and owner of a memfd that is mapped, too, and modes of two that forbid their owner to read them; how long it lives. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/xattr.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(memfd_create("mode", 0));
    MUST(ftruncate(fd, 4096));
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(mapped != MAP_FAILED, "no mapping");
    uint64_t hint = RWH_WRITE_LIFE_LONG, hint_now = 0;
    bool hinted = fcntl(fd, F_SET_RW_HINT, &hint) == 0;
    MUST(fchmod(fd, 0640));
    struct timespec times[2] = {{time(NULL) + 100000, 5}, {2000, 6}};
    struct stat was;
    bool labelled = fsetxattr(fd, "user.label", "a memfd", 7, 0) == 0; /* Linux 6.6 */
    bool given = fchown(fd, 1, 2) == 0;
    MUST(futimens(fd, times));
    MUST(fstat(fd, &was));
    int none = (int)MUST(memfd_create("none", 0)), unread = (int)MUST(memfd_create("unread", 0));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", unread);
    int writes = (int)MUST(open(path, O_WRONLY));
    MUST(pwrite(none, "none", 4, 0));
    MUST(pwrite(unread, "unread", 6, 0));
    MUST(fchmod(none, 0));
    MUST(fchmod(unread, 0200));
    close(unread);
    subject_wait(NULL);
    struct stat now;
    MUST(fstat(fd, &now));
    EXPECT((now.st_mode & 07777) == 0640, "the mode is %o", now.st_mode);
    EXPECT(now.st_uid == was.st_uid && now.st_gid == was.st_gid, "the owner is %d, not %d%s", now.st_uid, was.st_uid,
           given ? ", whom it was given to" : "");
    EXPECT(now.st_atim.tv_sec == was.st_atim.tv_sec && now.st_atim.tv_nsec == 5, "read at %ld", (long)now.st_atim.tv_sec);
    EXPECT(now.st_mtim.tv_sec == 2000 && now.st_mtim.tv_nsec == 6, "written at %ld", (long)now.st_mtim.tv_sec);
    char label[8] = "";
    EXPECT(!labelled || (fgetxattr(fd, "user.label", label, 7) == 7 && strcmp(label, "a memfd") == 0), "its label: %s", label);
    if (hinted)
        EXPECT(fcntl(fd, F_GET_RW_HINT, &hint_now) == 0 && hint_now == hint, "the hint is %d", (int)hint_now);
    MUST(pwrite(fd, "x", 1, 0));
    EXPECT(mapped[0] == 'x', "file and mapping are two");
    char found[8] = "";
    EXPECT(pread(none, found, 4, 0) == 4 && strcmp(found, "none") == 0, "of mode 0: %s", found);
    MUST(fstat(none, &now));
    EXPECT((now.st_mode & 07777) == 0, "its mode is %o", now.st_mode);
    MUST(fstat(writes, &now));
    EXPECT((now.st_mode & 07777) == 0200, "the mode of the last is %o", now.st_mode);
    MUST(fchmod(writes, 0600));
    snprintf(path, sizeof path, "/proc/self/fd/%d", writes);
    int reads = (int)MUST(open(path, O_RDONLY));
    EXPECT(read(reads, found, 6) == 6 && memcmp(found, "unread", 6) == 0, "of mode 0200: %s", found);
    subject_pass();
}
