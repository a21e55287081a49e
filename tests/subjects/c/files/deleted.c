/* Open files that were deleted: name, content, offset, size, link count; empty ones, sparse ones, two opens of one. */
#include "../subject.h"

static int fd;
static void spoil(void) { ftruncate(fd, 0) ? (void)0 : (void)0; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[300000], now[300000];
    subject_fill(content, sizeof content, 4);
    fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0640));
    int reader = (int)MUST(open(subject_path("file"), O_RDONLY));
    MUST(write(fd, content, sizeof content));
    MUST(ftruncate(fd, 50 << 20)); /* the rest is a hole */
    MUST(lseek(fd, 1234, SEEK_SET));
    MUST(unlink(subject_path("file")));
    int empty = (int)MUST(open(subject_path("empty"), O_RDWR | O_CREAT, 0600));
    MUST(unlink(subject_path("empty")));
    char link[64], was[PATH_MAX] = "", is[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", reader);
    MUST(readlink(link, was, sizeof was - 1));
    subject_wait(spoil);
    MUST(readlink(link, is, sizeof is - 1));
    EXPECT(strcmp(is, was) == 0, "it was %s, and is %s", was, is);
    struct stat st;
    MUST(fstat(fd, &st));
    EXPECT(st.st_size == 50 << 20 && st.st_nlink == 0, "size %ld, %d links", (long)st.st_size, (int)st.st_nlink);
    EXPECT((st.st_mode & 0777) == 0640, "mode %o", st.st_mode & 0777);
    EXPECT(st.st_blocks * 512 < 10 << 20, "the hole takes %ld KiB", (long)st.st_blocks / 2);
    EXPECT(pread(reader, now, sizeof now, 0) == sizeof now && !memcmp(now, content, sizeof now), "the content");
    EXPECT(lseek(fd, 0, SEEK_CUR) == 1234, "the offset");
    MUST(pwrite(fd, "new", 3, 10));
    EXPECT(pread(reader, now, 3, 10) == 3 && !memcmp(now, "new", 3), "the two descriptors show different files");
    EXPECT(write(empty, "x", 1) == 1 && access(subject_path("file"), F_OK) == -1, "the empty file");
    subject_pass();
}
