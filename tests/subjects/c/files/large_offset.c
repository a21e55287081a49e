/* Offsets beyond 4 GiB, beyond the end, and a sparse file that is bigger than the disk. */
#include "../subject.h"

#define FAR ((off_t)6 << 30)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(mkdir(subject_path("folder"), 0700)); /* where nobody reads it */
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/file", subject_path("folder"));
    int named = (int)MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    int gone = (int)MUST(open(subject_path("gone"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    int beyond = (int)MUST(open(path, O_RDWR));
    MUST(unlink(subject_path("gone")));
    MUST(pwrite(named, "far out", 7, FAR));
    MUST(pwrite(gone, "far away", 8, FAR));
    MUST(ftruncate(gone, (off_t)1 << 40));
    MUST(lseek(named, FAR + 4, SEEK_SET));
    MUST(lseek(gone, FAR, SEEK_SET));
    MUST(lseek(beyond, FAR * 2, SEEK_SET));
    subject_wait(NULL);
    char text[20] = "";
    struct stat now;
    EXPECT(read(named, text, 3) == 3 && !strcmp(text, "out"), "the offset beyond 4 GiB: '%s'", text);
    EXPECT(read(gone, text, 8) == 8 && !strcmp(text, "far away"), "the deleted file: '%s'", text);
    MUST(fstat(gone, &now));
    EXPECT(now.st_size == (off_t)1 << 40 && now.st_blocks < 1 << 12, "its size is %ld, in %ld blocks", (long)now.st_size,
           (long)now.st_blocks);
    EXPECT(lseek(gone, FAR + 4096, SEEK_HOLE) <= FAR + (1 << 20), "the hole is filled");
    EXPECT(lseek(beyond, 0, SEEK_CUR) == FAR * 2 && read(beyond, text, 1) == 0, "the offset beyond the end");
    subject_pass();
}
