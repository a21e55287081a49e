/* A working folder that was removed. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(chdir(subject_path("folder")));
    MUST(rmdir(subject_path("folder")));
    subject_wait(NULL);
    char here[PATH_MAX];
    EXPECT(getcwd(here, sizeof here) == NULL && errno == ENOENT, "the working folder is %s", here);
    EXPECT(access(subject_path("folder"), F_OK) == -1, "the folder is back");
    subject_pass();
}
