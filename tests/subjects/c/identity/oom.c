/* oom_score_adj, raised as anybody may. */
#include "../subject.h"

static void set(const char *value)
{
    int fd = (int)MUST(open("/proc/self/oom_score_adj", O_WRONLY));
    MUST(write(fd, value, strlen(value)));
    close(fd);
}

static void spoil(void) { set("900"); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    set("345");
    subject_wait(spoil);
    char text[20] = "";
    int fd = (int)MUST(open("/proc/self/oom_score_adj", O_RDONLY));
    MUST(read(fd, text, 19));
    EXPECT(atoi(text) == 345, "it is %s", text);
    subject_pass();
}
