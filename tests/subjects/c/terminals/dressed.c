/* A terminal whose file has a mode of its own, open on both sides, by path only too, and in two directions. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
    MUST(unlockpt(master));
    char name[64], text[16] = "";
    MUST0(ptsname_r(master, name, sizeof name));
    int reading = (int)MUST(open(name, O_RDONLY | O_NOCTTY)), by_path = (int)MUST(open(name, O_PATH));
    int writing = (int)MUST(open(name, O_WRONLY | O_NOCTTY));
    MUST(fchmod(reading, 0604));
    struct stat before, now;
    MUST(fstat(reading, &before));
    MUST(write(writing, "out", 3));
    MUST(write(master, "in\n", 3));
    subject_wait(NULL);
    MUST(fstat(reading, &now));
    EXPECT(now.st_mode == before.st_mode && now.st_uid == before.st_uid && now.st_gid == before.st_gid,
           "mode %o of %u:%u", now.st_mode, now.st_uid, now.st_gid);
    EXPECT(read(reading, text, sizeof text) == 3 && memcmp(text, "in\n", 3) == 0, "typed: '%.3s'", text);
    EXPECT(read(master, text, 3) == 3 && memcmp(text, "out", 3) == 0, "printed: '%.3s'", text);
    EXPECT(write(reading, "x", 1) == -1 && read(writing, text, 1) == -1, "the directions");
    EXPECT(fcntl(by_path, F_GETFL) & O_PATH, "it is more than a path");
    MUST(fstat(by_path, &before));
    EXPECT(before.st_rdev == now.st_rdev, "the path leads to device %#lx", (unsigned long)before.st_rdev);
    subject_pass();
}
