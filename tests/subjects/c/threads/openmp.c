/* An OpenMP program between two parallel regions: its pool of threads computes the same afterwards. */
/* cc: -fopenmp */
#include "../subject.h"
#include <omp.h>

static double work(void)
{
    double sum = 0;
#pragma omp parallel for reduction(+ : sum) schedule(static) num_threads(4)
    for (int i = 0; i < 2000000; i++)
        sum += (double)subject_mix((uint64_t)i) / 1e18;
    return sum;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    double before = work();
    subject_wait(NULL);
    double after = work();
    /* the order of the reduction is the runtime's choice: equal but for rounding */
    EXPECT(after - before < before * 1e-12 && before - after < before * 1e-12, "%.17g instead of %.17g", after, before);
    int threads = 0;
#pragma omp parallel num_threads(4)
#pragma omp atomic
    threads++;
    EXPECT(threads == 4, "%d threads", threads);
    subject_pass();
}
