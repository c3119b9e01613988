"""The study behind `reports/study.py`: which number predicts the time of a network?

networks     the networks and their plain/CSP pairs
measurement  times on the engines of this machine, in batches that can be resumed
counters     accesses to memory by hardware counters
predictors   what each network needs in theory, and predictions that leave a family out
dram         traffic to memory: a cache model of our own, and the hardware model ZigZag
results      the file of measurements and theory, and scores, pairs and rankings from it
page         study.md and study.csv
figure       study.png
"""
