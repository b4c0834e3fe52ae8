"""What stages that learn from rewarded rollouts share, and what each makes of the rewards.

rolling              what they work with
rollouts             their stream, their plan, their dev measurement
served               answers from a server: adapters pushed, ages counted
answer_server        requests to it, and what its replies must hold
reward_forecast      what a reward says of the policy's own answers, as a run begins
steps                the optimizer steps of one rollout, and how far they may go
group_advantages     answers that compete within their group
token_advantages     a critic's share in the reward of every token
critic               the critic
"""
