/* The devices that everybody may open: null, zero, full, random, urandom. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
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
