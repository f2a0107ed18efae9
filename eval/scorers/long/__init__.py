"""What becomes of a video over a long time: drift, repetition, freezing, prompt switches and cuts."""
