/* FIFOs: one whose writers are gone, one unlinked with content, one opened for writing alone, one never written to. */
#include "../subject.h"
#include <poll.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char *names[] = {"left", "gone", "alone", "quiet"};
    int readers[4], writers[4];
    for (int i = 0; i < 4; i++) {
        MUST(mkfifo(subject_path(names[i]), 0620));
        readers[i] = (int)MUST(open(subject_path(names[i]), O_RDONLY | O_NONBLOCK));
        writers[i] = (int)MUST(open(subject_path(names[i]), O_WRONLY));
    }
    MUST(write(writers[0], "last words", 10));
    MUST(close(writers[0]));
    MUST(write(writers[1], "in the gone one", 15));
    MUST(unlink(subject_path("gone")));
    MUST(close(readers[2]));
    subject_wait(NULL);
    char text[40] = "";
    EXPECT(read(readers[0], text, 40) == 10 && !memcmp(text, "last words", 10), "'%s' was left", text);
    EXPECT(read(readers[0], text, 40) == 0, "no end behind it");
    EXPECT(read(readers[1], text, 40) == 15, "the unlinked one");
    EXPECT(write(writers[1], "x", 1) == 1 && read(readers[1], text, 40) == 1, "its ends lost each other");
    EXPECT(access(subject_path("gone"), F_OK) == -1, "the unlinked one has its name back");
    EXPECT(poll(&(struct pollfd){.fd = writers[2], .events = POLLOUT}, 1, 0) == 1, "the lonely writer is not told so");
    int late = (int)MUST(open(subject_path("alone"), O_RDONLY | O_NONBLOCK));
    EXPECT(write(writers[2], "abc", 3) == 3 && read(late, text, 40) == 3, "a new reader gets nothing");
    EXPECT(read(readers[3], text, 40) == -1 && errno == EAGAIN, "the quiet one is at its end");
    int second = (int)MUST(open(subject_path("quiet"), O_WRONLY));
    EXPECT(write(second, "abc", 3) == 3 && read(readers[3], text, 40) == 3, "a new writer reaches nobody");
    subject_pass();
}
