/* A pipe's end opened again through /proc/self/fd: one pipe, two descriptions. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    char path[64], text[20] = "";
    MUST(pipe(ends));
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
    int second = (int)MUST(open(path, O_WRONLY | O_NONBLOCK));
    MUST(write(second, "one", 3));
    subject_wait(NULL);
    MUST(write(ends[1], "two", 3));
    EXPECT(read(ends[0], text, sizeof text) == 6 && !strcmp(text, "onetwo"), "'%s'", text);
    EXPECT(!(fcntl(ends[1], F_GETFL) & O_NONBLOCK), "both writers share one description");
    EXPECT(fcntl(second, F_GETFL) & O_NONBLOCK, "the second writer blocks");
    subject_pass();
}
